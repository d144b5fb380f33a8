/* Which jobs belong to one contact sheet: the daemon keeps jobs, this browser keeps how they lay. */
import {keep} from './dom.js';

const SHEETS_MAX = 24;
let all = [];
try { all = JSON.parse(keep.get('sheets') || '[]'); } catch { /* none */ }

export const sheetOf = (id) => all.find((one) => one.ids.includes(id));
export function keepSheet(sheet) {
  all = [sheet, ...all].slice(0, SHEETS_MAX);
  keep.set('sheets', JSON.stringify(all));
  for (const f of listeners) f(sheet);
}
const listeners = [];
export const onSheet = (f) => listeners.push(f);
