/** The sidebar: a banner when the control plane does not answer, then collapsible sections. */

import type { IStateDB } from '@jupyterlab/statedb';
import type { ITranslator, TranslationBundle } from '@jupyterlab/translation';
import { ReactWidget, SidePanel } from '@jupyterlab/ui-components';
import type { AccordionPanel } from '@lumino/widgets';
import * as React from 'react';

import type { IActions } from './components/actions';
import { Banner } from './components/banner';
import type { IViewStore } from './components/jobs/keptView';
import { Jobs } from './components/jobs/section';
import { Quota } from './components/quota';
import { tuttiIcon } from './icons';
import type { IModel } from './model/tokens';
import { keepHeights } from './sections';

export const PANEL_ID = 'tuttilab-panel';
const SIZES = [0.55, 0.25, 0.2];

export function createPanel(
  model: IModel,
  actions: IActions,
  store: IViewStore | null,
  translator: ITranslator,
  trans: TranslationBundle
): SidePanel {
  const panel = new SidePanel({ translator });
  panel.id = PANEL_ID;
  panel.title.icon = tuttiIcon;
  panel.title.caption = trans.__('Jobs, quota and DAGs');
  panel.addClass('tl-Panel');
  panel.node.setAttribute('role', 'region');
  panel.node.setAttribute('aria-label', trans.__('tuttilab'));
  panel.header.addWidget(view(<Banner model={model} actions={actions} trans={trans} />, 'tl-BannerView'));
  const jobs = section(trans.__('Jobs'), <Jobs model={model} actions={actions} store={store} trans={trans} />);
  jobs.addClass('tl-mod-first');
  panel.addWidget(jobs);
  const quota = section(trans.__('Quota'), <Quota model={model} trans={trans} />);
  // It has no focusable element, so it takes the focus itself: otherwise it could not be scrolled by keyboard.
  quota.node.tabIndex = 0;
  panel.addWidget(quota);
  return panel;
}

/** Adds the last section, below the others. */
export function addSection(panel: SidePanel, title: string, element: React.JSX.Element, state: IStateDB | null): void {
  panel.addWidget(section(title, element));
  keepHeights(panel.content as AccordionPanel, SIZES.slice(0, panel.widgets.length), state);
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
