/** The extension's icon: four places, three of them taken. */

import { LabIcon } from '@jupyterlab/ui-components';

const SVG = `<svg xmlns="http://www.w3.org/2000/svg" width="16" height="16" viewBox="0 0 16 16">
  <g class="jp-icon3" fill="#616161">
    <rect x="1.5" y="1.5" width="5.600" height="5.600" rx="1.200"/>
    <rect x="8.900" y="1.5" width="5.600" height="5.600" rx="1.200"/>
    <rect x="1.5" y="8.900" width="5.600" height="5.600" rx="1.200"/>
    <path fill-rule="evenodd" d="M10.100 8.900h3.200a1.200 1.200 0 0 1 1.200 1.200v3.200a1.200 1.200 0 0 1-1.200 1.200h-3.200a1.200 1.200 0 0 1-1.200-1.200v-3.200a1.200 1.200 0 0 1 1.200-1.200Zm.2 1.400v2.800h2.800v-2.800Z"/>
  </g>
</svg>`;

export const tuttiIcon = new LabIcon({ name: 'tuttilab:icon', svgstr: SVG });
