/** Spark SQL as CodeMirror knows languages. Words: docs/sql-ref-ansi-compliance.md and sql-ref-datatypes.md of Spark 4. */

import { SQLDialect } from '@codemirror/lang-sql';

const KEYWORDS = `
add after aggregate all alter always analyze and anti any array as asc at authorization between binding both bucket buckets by cache
cascade case cast catalog catalogs change check clear cluster clustered code collate collation collection column columns comment
commit compensation compute concatenate constraint contains cost create cross cube current current_catalog current_database
current_date current_schema current_time current_timestamp current_user data database databases datediff day dbproperties declare
default defined delete delimited desc describe dfs directories directory distinct distribute div do drop else elseif end enforced
escape escaped evolution except exchange exclude execute exists exit explain export extended external extract fetch fields
fileformat filter first following for foreign format formatted from full function functions generated global grant group grouping
handler having hour identifier if ignore ilike immediate import in include index indexes inner inpath input inputformat insert
intersect into is items iterate join keys last lateral lazy leading leave left like limit lines list load local location lock
locks logical long loop macro materialized matched merge microsecond millisecond minus minute month msck namespace namespaces
natural no none not nulls of offset on only option options or order out outer outputformat over overlaps overlay overwrite
partition partitioned partitions percent pivot placing position preceding primary principals properties purge quarter query range
recordreader recordwriter recover reduce references refresh rename repair repeat repeatable replace reset respect restrict
return returns revoke right rlike role roles rollback rollup row rows schema schemas second select semi separated serde
serdeproperties session_user set sets show skewed some sort sorted source start statistics stored stratify strategy substr
substring sync system_time system_version table tables tablesample target tblproperties temporary terminated then to touch
trailing transaction transactions transform trim truncate try_cast type unarchive unbounded uncache union unique unknown unlock
unpivot unset until update use user using values var variable version view views watermark week when where while window with
within without year zone`;

const TYPES = `
bigint binary boolean byte char character date dec decimal double float int integer interval long map numeric real short smallint
string struct timestamp timestamp_ltz timestamp_ntz tinyint varchar variant void`;

export const SparkSQL = SQLDialect.define({
  keywords: KEYWORDS,
  types: TYPES,
  builtin: '',
  backslashEscapes: true,
  doubleQuotedStrings: true,
  identifierQuotes: '`',
  operatorChars: '*+-%<>!=&|~^/',
  specialVar: ':',
  caseInsensitiveIdentifiers: true
});
