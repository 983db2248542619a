// `#/recordings`: finished recordings, newest first.

import { get } from '../api.js';
import { h } from '../dom.js';
import { asked, downloads, filters } from '../filters.js';
import { t } from '../i18n.js';
import { pages } from '../list.js';
import { empty, heading, meetingLink } from '../parts.js';
import { recordingColumns } from './meeting.js';

export function recordings({ query, masked, signal, announce }) {
  const fields = [
    { name: 'meeting', kind: 'text' },
    !masked && { name: 'person', kind: 'text' },
    { name: 'since', kind: 'time' },
    { name: 'until', kind: 'time' },
  ].filter(Boolean);
  const parameters = asked(query, [...fields.map((field) => field.name), 'subscriber']);
  const meeting = { label: t('meeting.meeting'), wide: true, cell: (one) => meetingLink(one, one.meeting_id ?? one.meeting_uuid) };
  return {
    title: t('nav.recordings'),
    node: h('div', null, heading(t('nav.recordings')), h('p', { class: 'lead' }, t('recordings.lead')),
      filters('recordings', fields, query), downloads('recordings', parameters), pages({
        columns: [meeting, ...recordingColumns()],
        caption: t('meeting.recordings'),
        announce,
        load: (cursor) => get('recordings', { ...parameters, cursor }, signal),
        whenEmpty: () => (Object.keys(parameters).length > 0 ? empty(t('list.none'), t('list.none.more')) : empty(t('recordings.none'), t('recordings.none.more'))),
      })),
  };
}
