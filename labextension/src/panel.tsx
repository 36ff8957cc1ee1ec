/** The sidebar: what is wrong on top, then sections that fold. */

import type { ITranslator, TranslationBundle } from '@jupyterlab/translation';
import { ReactWidget, SidePanel } from '@jupyterlab/ui-components';
import type { AccordionPanel } from '@lumino/widgets';
import * as React from 'react';

import type { IActions } from './components/actions';
import { Banner } from './components/banner';
import { Jobs } from './components/jobs';
import { Quota } from './components/quota';
import { tuttiIcon } from './icons';
import type { IModel } from './tokens';

export const PANEL_ID = 'tuttilab-panel';
const SIZES = [0.55, 0.25, 0.2];

export function createPanel(model: IModel, actions: IActions, translator: ITranslator, trans: TranslationBundle): SidePanel {
  const panel = new SidePanel({ translator });
  panel.id = PANEL_ID;
  panel.title.icon = tuttiIcon;
  panel.title.caption = trans.__('Jobs, quota and DAGs');
  panel.addClass('tl-Panel');
  panel.node.setAttribute('role', 'region');
  panel.node.setAttribute('aria-label', trans.__('tuttilab'));
  panel.header.addWidget(view(<Banner model={model} actions={actions} trans={trans} />, 'tl-BannerView'));
  panel.addWidget(section(trans.__('Jobs'), <Jobs model={model} actions={actions} trans={trans} />));
  const quota = section(trans.__('Quota'), <Quota model={model} trans={trans} />);
  // Nothing in it takes the focus, so it has to itself, or nobody could scroll it by keyboard.
  quota.node.tabIndex = 0;
  panel.addWidget(quota);
  return panel;
}

/** One more section below the others. */
export function addSection(panel: SidePanel, title: string, element: React.JSX.Element): void {
  panel.addWidget(section(title, element));
  (panel.content as AccordionPanel).setRelativeSizes(SIZES.slice(0, panel.widgets.length));
}

function view(element: React.JSX.Element, className: string): ReactWidget {
  const widget = ReactWidget.create(element);
  widget.addClass(className);
  return widget;
}

function section(title: string, element: React.JSX.Element): ReactWidget {
  const widget = view(element, 'tl-Section');
  widget.title.label = title;
  return widget;
}
