// Lab's own conventions by its plugin (commands with describedBy, no untranslated string, tokens …), types strict, and no way to
// turn data into markup.
import jupyter from '@jupyter/eslint-plugin';
import tseslint from 'typescript-eslint';

export default tseslint.config(
  { ignores: ['node_modules', 'lib', 'dist', 'src/model/schema.ts'] },
  ...jupyter.configs.recommended.map(part => ({ ...part, plugins: { ...part.plugins, jupyter } })),
  {
    files: ['src/**/*.ts', 'src/**/*.tsx', 'tests/**/*.ts'],
    extends: [...tseslint.configs.recommended],
    rules: {
      eqeqeq: 'error',
      // The sidebar is there from the start: what is loaded later would only come with one more request.
      'jupyter/prefer-lazy-imports': 'off',
      // A token and its interface have one name, as everywhere in Lab.
      '@typescript-eslint/no-redeclare': 'off',
      '@typescript-eslint/no-namespace': 'off',
      'no-restricted-syntax': [
        'error',
        { selector: "JSXAttribute[name.name='dangerouslySetInnerHTML']", message: 'Text nodes only.' },
        { selector: "MemberExpression[property.name=/^(innerHTML|outerHTML|insertAdjacentHTML|srcdoc)$/]", message: 'Text nodes only.' },
        { selector: "CallExpression[callee.name='eval']", message: 'Never.' },
        { selector: "NewExpression[callee.name='Function']", message: 'Never.' }
      ]
    }
  }
);
