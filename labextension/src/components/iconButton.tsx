/** A button that is an icon, with its label for all who do not see it. */

import type { LabIcon } from '@jupyterlab/ui-components';
import * as React from 'react';

interface IProps {
  icon: LabIcon;
  label: string;
  tab?: number;
  onClick: () => void;
}

export function IconButton({ icon, label, tab, onClick }: IProps): React.JSX.Element {
  return (
    <button type="button" className="tl-IconButton" title={label} aria-label={label} tabIndex={tab ?? 0} onClick={onClick}>
      <icon.react tag="span" aria-hidden="true" width="14px" height="14px" />
    </button>
  );
}
