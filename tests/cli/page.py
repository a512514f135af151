# SPDX-License-Identifier: MIT
"""What the tests of the program's pages share: a strict reader of HTML."""
import collections
import html.parser


class Page(html.parser.HTMLParser):
    """Checks that every element is closed, and collects texts, tables (also the data-v of their
    cells) and labels of pictures, and how often there is each element."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tables, self.values, self.texts = [], [], [], []
        self.pictures, self.scripts, self.tags = 0, 0, collections.Counter()
        self.section, self.elements = None, []  # (tag, attributes, section's id)
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.count(tag, attrs)
        self.scripts += tag == 'script' or any(name.startswith('on') for name in attrs)
        if tag == 'svg':
            assert attrs.get('aria-label') or attrs.get('aria-hidden') == 'true', attrs
            self.pictures += 1
        if tag == 'table':
            self.tables.append([])
            self.values.append([])
        if tag == 'tr':
            self.tables[-1].append([])
            self.values[-1].append([])
        if tag in ('td', 'th'):
            self.tables[-1][-1].append('')
            self.values[-1][-1].append(attrs.get('data-v'))
        self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.count(tag, dict(attrs))

    def count(self, tag, attrs):
        self.tags[tag] += 1
        self.section = attrs.get('id') if tag == 'section' else self.section
        self.elements.append((tag, attrs, self.section))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, tag

    def handle_data(self, data):
        if 'td' in self.open or 'th' in self.open:
            self.tables[-1][-1][-1] += data
        if data.strip() and 'style' not in self.open:
            self.texts.append(data)
