/** What an output says of a session's pages (magics/shared/pages.py). No requests. */

export const PAGES_MIME = 'application/vnd.tuttilab.pages+json';
const VERSION = 1;
/** As the server extension takes them (jupyter_ext/spark_ui.py). */
const NAME = /^[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$/;

/** The session's name; null for data of another version or shape: then the text is shown. */
export function sessionOf(data: unknown): string | null {
  if (typeof data !== 'object' || data === null) {
    return null;
  }
  const given = data as Record<string, unknown>;
  const session = given['session'];
  return given['version'] === VERSION && typeof session === 'string' && NAME.test(session) ? session : null;
}

export function pagesPath(session: string): string {
  return `tuttilab/spark/${encodeURIComponent(session)}/ui`;
}
