# SPDX-License-Identifier: MIT
"""Lines of manual pages, labelled with their language: language_data.py MAN_FOLDER OUT_FOLDER

A line counts with at least 40 characters, 6 words and 85 % letters among what is no space; not
inside a code block, and, outside English, with at most one English stop word. Equal lines count
once. A page, whatever its language, is all training or all test; at most 3000 lines a language.
"""
import gzip
import hashlib
import pathlib
import re
import sys

LANGUAGES = ['cs', 'de', 'en', 'es', 'fr', 'it', 'nl', 'pl', 'ru', 'sv', 'uk']
LINES = 3000
TEST_SHARE = 5  # one page of so many
# Without "a" and "i", which are words of too many languages.
STOP_WORDS = set('''
    about after all also an and any are as at be because been before being between both but by
    can could did do does each either every for from given had has have having he her here his
    how however if in into is it its itself like may might more most must no non not of off on
    once one only or other our out over own same set shall she should since so some such than
    that the their them then there these they this those through to too under until up upon use
    used using very was we were what when where whether which while who whose why will with
    within without would you your
'''.split())
CODE_BEGIN = re.compile(r"[.']\s*(nf|EX|DS|TS)\b")
CODE_END = re.compile(r"[.']\s*(fi|EE|DE|TE)\b")
FONT = re.compile(r'\\f(\[[^\]]*\]|\(..|.)')
SPECIAL = re.compile(r'\\(\[[^\]]*\]|\(..|[&|^/,:!%])')


def plain(line):
    """The text of a line of a page, without the typesetter's escapes."""
    line = FONT.sub('', line).replace('\\-', '-').replace('\\(aq', "'").replace('\\ ', ' ')
    return ' '.join(SPECIAL.sub('', line).replace('\\e', '').replace('~', ' ').split())


def is_prose(text, language):
    words = text.split()
    letters = sum(c.isalpha() for c in text)
    if len(text) < 40 or len(words) < 6 or letters < 0.85 * sum(map(len, words)):
        return False
    if '\\' in text or '\t' in text:
        return False
    stops = sum(word.strip('.,;:()').lower() in STOP_WORDS for word in words)
    return language == 'en' or stops < 2


def lines_of(path):
    """The lines of a page that are text, code blocks left out."""
    with gzip.open(path, 'rt', encoding='utf-8', errors='replace') as page:
        in_code = False
        for line in page:
            if line.startswith(('.', "'")):
                in_code = (in_code or bool(CODE_BEGIN.match(line))) and not CODE_END.match(line)
            elif not in_code and not line.startswith((' ', '\t')):
                yield plain(line)


def order(text):
    return hashlib.sha256(text.encode()).hexdigest()


def pages_of(man, language):
    """Page files of a language, in an order that has nothing to do with their names."""
    folder = man if language == 'en' else man / language
    files = [p for p in folder.glob('man[1-8]/*.gz') if p.is_file() and not p.is_symlink()]
    return sorted(files, key=lambda p: order(p.name))


def main(man, out):
    seen, parts = set(), {'train': [], 'test': []}
    for language in LANGUAGES:
        found = 0
        for page in pages_of(man, language):
            if found == LINES:
                break
            part = 'test' if int(order('split ' + page.name)[:8], 16) % TEST_SHARE == 0 else 'train'
            for text in lines_of(page):
                if found < LINES and is_prose(text, language) and text not in seen:
                    seen.add(text)
                    parts[part].append(f'{language}\t{text}\n')
                    found += 1
        print(f'{language}: {found} lines', file=sys.stderr)
    for part, rows in parts.items():
        path = out / f'languages-{part}.tsv'
        path.write_text(''.join(rows), encoding='utf-8')
        print(f'{path}: {len(rows)} lines', file=sys.stderr)


if __name__ == '__main__':
    main(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
