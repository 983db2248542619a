// `#/`: is it well, what is happening, what happened. Everything but the charts comes with each message of the stream.

import { h } from '../dom.js';
import { t } from '../i18n.js';
import { watch } from '../live.js';
import { behindPart } from '../overview/behind.js';
import { chartsPart } from '../overview/happened.js';
import { nowPart } from '../overview/happening.js';
import { tilesPart } from '../overview/tiles.js';
import { verdictPart } from '../overview/verdict.js';

export function overview({ signal, announce }) {
  const parts = [verdictPart(announce), tilesPart(), nowPart(), chartsPart(signal), behindPart()];
  const stop = watch((state) => { for (const part of parts) part.update(state); });
  for (const part of parts) part.update({ status: 'waiting', message: null });
  return {
    title: t('nav.overview'),
    node: h('div', { class: 'overview' }, parts.map((part) => part.node)),
    destroy() {
      stop();
      for (const part of parts) part.destroy?.();
    },
  };
}
