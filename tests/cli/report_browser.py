# SPDX-License-Identifier: MIT
"""The page of vkmoe report in a browser: nothing sticks out at the width of a phone, texts can be
read in the light and in the dark, the table sorts and filters, nothing is an error. Skipped where
no Chromium starts. Usage: report_browser.py PROGRAM"""
import json
import re
import sys
import unittest

import bench_sample
import helper
from browser import Browser
from helper import run

DARK = '--blink-settings=preferredColorScheme=0'
LIGHT = '--blink-settings=preferredColorScheme=1'

WIDTHS = """
const inside = e => e.closest('.scroll, .tip, .shapes');
const out = Array.from(document.querySelectorAll('body *')).filter(function (e) {
  const box = e.getBoundingClientRect();
  return box.width > 0 && !inside(e) && (box.right > window.innerWidth + 0.5 || box.left < -0.5);
});
const root = document.documentElement;
return {inner: window.innerWidth, scroll: root.scrollWidth,
        out: out.map(e => e.tagName + ' ' + e.getAttribute('class'))};
"""

# Contrast as WCAG 2 defines it, of every element that has text of its own.
CONTRAST = """
function channels(text) {
  const all = text.match(/[\\d.]+/g).map(Number);
  return all.length === 4 && all[3] === 0 ? null : all;
}
function background(e) {
  for (; e; e = e.parentElement) {
    const found = channels(window.getComputedStyle(e).backgroundColor);
    if (found)
      return found;
  }
  return [255, 255, 255];
}
function luminance(rgb) {
  const [r, g, b] = rgb.map(c => c / 255)
    .map(c => c <= 0.03928 ? c / 12.92 : Math.pow((c + 0.055) / 1.055, 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}
let n = 0, least = 99, worst = '';
for (const e of document.querySelectorAll('body *')) {
  const own = Array.from(e.childNodes).some(c => c.nodeType === 3 && c.data.trim());
  if (!own || !e.getClientRects().length || e.closest('script, title'))
    continue;
  const style = window.getComputedStyle(e);
  const ink = luminance(channels(e.closest('svg') ? style.fill : style.color));
  const paper = luminance(background(e));
  const contrast = (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
  n += 1;
  if (contrast < least) {
    least = contrast;
    worst = e.outerHTML.slice(0, 120);
  }
}
return {n: n, least: least, worst: worst, dark: luminance(background(document.body)) < 0.2};
"""

SORT = """
const heads = Array.from(document.querySelectorAll('#rows thead th'));
const names = heads.map(h => h.textContent);
function column(name) {
  const i = names.indexOf(name);
  return Array.from(document.querySelector('#rows').tBodies[0].rows)
    .map(r => heads[i].classList.contains('num') ? r.cells[i].dataset.v || null
              : r.cells[i].textContent);
}
function click(name) {
  heads[names.indexOf(name)].querySelector('button').click();
  return {cells: column(name), sort: heads.map(h => h.getAttribute('aria-sort')).filter(Boolean)};
}
return {before: column('Time'), down: click('Time'), up: click('Time'), model: click('Model')};
"""

FILTER = """
const form = document.querySelector('.filter');
const shown = () => Array.from(document.querySelector('#rows').tBodies[0].rows)
  .filter(r => r.getClientRects().length).length;
function set(field, value) {
  field.value = value;
  field.dispatchEvent(new window.Event('input', {bubbles: true}));
  return [shown(), form.querySelector('output').textContent];
}
const text = form.querySelector('input'), device = form.elements.device;
const found = {hidden: form.hidden, all: shown(), q4: set(text, 'Q4_0 granite'),
               none: set(text, 'zz')};
set(text, '');
found.device = set(device, '1');
found.failed = set(form.elements.status, 'error');
return found;
"""

HOVER = """
const mark = document.querySelectorAll('#roofline .mark')[3], tip = document.querySelector('.tip');
const before = tip.textContent;
mark.dispatchEvent(new window.PointerEvent('pointerover', {bubbles: true}));
const box = tip.getBoundingClientRect();
const found = {before: before, after: tip.textContent, left: box.left, right: box.right,
               width: window.innerWidth, label: mark.getAttribute('aria-label')};
document.body.dispatchEvent(new window.PointerEvent('pointerover', {bubbles: true}));
found.gone = tip.textContent;
const entry = document.querySelector('#roofline [data-d=d1]');
entry.dispatchEvent(new window.PointerEvent('pointerenter'));
const faint = e => Number(window.getComputedStyle(e).opacity) < 0.5;
found.faint = Array.from(document.querySelectorAll('#roofline .mark')).map(faint);
entry.dispatchEvent(new window.PointerEvent('pointerleave'));
found.back = document.querySelectorAll('#roofline .dim').length;
return found;
"""


class ReportInBrowser(helper.Case):
    def setUp(self):
        super().setUp()
        self.browser = Browser(self.folder)
        self.file = bench_sample.sample()
        self.file['devices'][0]['name'] = '<script>console.error("ran")</script>'
        self.file['environment'] = 'VK_ICD_FILENAMES=/' + 'a' * 400
        self.page = self.make(self.file)

    def make(self, *files):
        names = []
        for i, file in enumerate(files):
            names.append(self.folder / f'{i}.json')
            names[-1].write_text(json.dumps(file), encoding='utf-8')
        out = self.folder / 'r.html'
        done = run('report', *names, '-o', out)
        self.assertEqual(done.returncode, 0, done.stderr)
        return out.read_text(encoding='utf-8')

    def find(self, script, width=1200, *options):
        found = self.browser.find(self.page, width, script, *options)
        self.assertNotIn('failed', {k: v for k, v in found.items() if isinstance(v, str)})
        self.assertEqual(found['notes'], [])
        return found

    def test_nothing_sticks_out(self):
        more = [bench_sample.sample(seed) for seed in (2, 3)]
        for self.page in (self.page, self.make(self.file, *more)):
            for width in (320, 360, 1200):
                found = self.find(WIDTHS, width)
                self.assertEqual((found['inner'], found['out']), (width, []))
                self.assertLessEqual(found['scroll'], width)

    def test_wide_things_are_seen(self):
        """A control: a table that leaves its box is found."""
        self.page = self.page.replace('overflow-x: auto;', '', 1).replace('overflow: auto;', '', 1)
        found = self.find(WIDTHS, 360)
        self.assertGreater(found['scroll'], 360)

    def test_contrast(self):
        for scheme in (LIGHT, DARK):
            found = self.find(CONTRAST, 1200, scheme)
            self.assertEqual(found['dark'], scheme == DARK)
            self.assertGreater(found['n'], 500)
            self.assertGreaterEqual(found['least'], 4.5, found['worst'])
        self.page = self.page.replace('--muted: #5c5951', '--muted: #a8a59d')
        self.assertLess(self.find(CONTRAST, 1200, LIGHT)['least'], 4.5)  # a control

    def test_sorting(self):
        found = self.find(SORT)
        times = [r['device_times']['median_us'] for r in self.file['rows']
                 if r['status'] in ('ok', 'unverified')]
        n_unknown = len(self.file['rows']) - len(times)
        self.assertNotEqual(found['before'], found['down']['cells'])
        for way, reverse, word in (('down', True, 'descending'), ('up', False, 'ascending')):
            cells = found[way]['cells']
            self.assertEqual(cells[len(times):], [None] * n_unknown)
            for cell, time in zip(cells, sorted(times, reverse=reverse)):
                self.assertAlmostEqual(float(cell) / time, 1, places=7)
            self.assertEqual(found[way]['sort'], [word])
        self.assertEqual(found['model']['cells'], sorted(found['model']['cells']))
        self.assertEqual(found['model']['sort'], ['ascending'])

    def test_filter(self):
        found = self.find(FILTER)
        self.assertEqual((found['hidden'], found['all']), (False, 40))
        self.assertEqual(found['q4'], [10, '10 of 40 rows'])
        self.assertEqual(found['none'], [0, '0 of 40 rows'])
        self.assertEqual(found['device'], [20, '20 of 40 rows'])
        self.assertEqual(found['failed'], [1, '1 of 40 rows'])

    def test_hover(self):
        for width in (360, 1200):
            found = self.find(HOVER, width)
            self.assertEqual((found['before'], found['gone'], found['back']), ('', '', 0))
            self.assertEqual(found['after'], found['label'])
            self.assertIn(self.file['rows'][3]['case'], found['after'])
            self.assertGreaterEqual(found['left'], 0)
            self.assertLessEqual(found['right'], width)
            devices = [r['device'] for r in self.file['rows']
                       if r['status'] in ('ok', 'unverified')]
            self.assertEqual(found['faint'], [d == 0 for d in devices])

    def test_errors_are_seen(self):
        """A control: what a script of the page does wrong is noted."""
        self.page = self.page.replace("'use strict';", "console.error('wrong'); none();", 1)
        notes = self.browser.find(self.page, 400, 'return {};')['notes']
        self.assertEqual(notes[0], 'wrong')
        self.assertIn('none', notes[1])

    def test_without_script(self):
        """All rows are there, and nothing that would not work."""
        script = """
          const seen = what => Array.from(document.querySelectorAll(what))
            .filter(e => e.getClientRects().length).length;
          return {rows: seen('#rows tbody tr'), form: seen('.filter'),
                  hint: seen('.with-script'), buttons: seen('button')};
        """
        found = self.find(script)
        self.assertEqual((found['form'], found['hint'], found['buttons']), (1, 1, 22))
        self.page = re.sub('<script>.*?</script>', '', self.page, flags=re.S)
        found = self.find(script)
        self.assertEqual(list(found.values()), [40, 0, 0, 0, []])


def main():
    case = helper.Case()
    case.setUp()
    works = Browser(case.folder).starts()
    case.doCleanups()
    if not works:
        print('no Chromium that starts')
        sys.exit(77)
    unittest.main()


if __name__ == '__main__':
    main()
