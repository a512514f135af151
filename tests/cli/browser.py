# SPDX-License-Identifier: MIT
"""A page in headless Chromium, at any width, and what a script of the test finds there."""
import html
import json
import os
import re
import shutil
import subprocess

NAMES = ('chromium', 'chromium-browser', 'google-chrome')
OPTIONS = ('--headless', '--no-sandbox', '--disable-gpu', '--hide-scrollbars',
           '--force-prefers-reduced-motion', '--virtual-time-budget=9000')

# The page lies in a frame, because a window has a least width. What goes wrong in it is noted
# before its own script begins.
NOTES = """<script>
window.notes = [];
addEventListener('error', event => notes.push(String(event.message)));
const note = console.error;
console.error = console.warn = function (...all) { notes.push(all.join(' ')); note(...all); };
</script>"""

FRAME = """<!DOCTYPE html>
<html><head><meta charset="utf-8"><meta name="color-scheme" content="light dark"></head>
<body style="margin:0">
<iframe style="border:0;width:{width}px;height:900px" srcdoc="{page}"></iframe>
<pre id="found"></pre>
<script>
addEventListener('load', function () {{
  const frame = document.querySelector('iframe').contentWindow;
  let found;
  try {{
    found = (function (window, document) {{ {script} }}(frame, frame.document));
  }} catch (error) {{
    found = {{failed: String(error)}};
  }}
  found.notes = frame.notes;
  document.getElementById('found').textContent = JSON.stringify(found);
}});
</script>
</body></html>
"""


class Browser:
    def __init__(self, folder):
        self.folder = folder
        found = [os.environ.get('VKMOE_BROWSER'), *map(shutil.which, NAMES)]
        self.path = next(filter(None, found), None)

    def starts(self):
        if not self.path:
            return False
        try:
            return self.find('<p>text</p>', 400, 'return {n: document.images.length};')['n'] == 0
        except (OSError, ValueError, subprocess.TimeoutExpired):
            return False

    def dump(self, page, *options):
        path = self.folder / 'page.html'
        path.write_text(page, encoding='utf-8')
        done = subprocess.run(
            [self.path, *OPTIONS, f'--user-data-dir={self.folder}/browser', *options, '--dump-dom',
             f'file://{path}'], capture_output=True, text=True, timeout=100, check=False)
        return done.stdout

    def find(self, page, width, script, *options):
        """What the body of a function (window, document) of the page returns, a dict."""
        page = page.replace('<head>', '<head>' + NOTES, 1)
        page = FRAME.format(width=width, page=html.escape(page), script=script)
        text = self.dump(page, '--window-size=1400,1000', *options)
        found = re.search(r'<pre id="found">(.+?)</pre>', text, re.S)
        if not found:
            raise ValueError('the browser shows nothing: ' + text[:300])
        return json.loads(html.unescape(found[1]))
