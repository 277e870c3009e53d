"""Every relative link of every page leads somewhere: to a file, and to a heading where it names one."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(path for path in ROOT.rglob('*.md')
               if not {'.venv', 'build', 'install', 'log', 'out', 'node_modules'} & set(path.relative_to(ROOT).parts))
LINK = re.compile(r'!?\[[^\]]*\]\(([^)\s]+)(?:\s+"[^"]*")?\)')
FENCE = re.compile(r'^(```|~~~).*?^\1', re.MULTILINE | re.DOTALL)


def anchors(page):
    """Fragments of the headings, as GitHub makes them: lower case, signs left out, a number at repetitions."""
    seen, found = {}, set()
    for heading in re.findall(r'^#+\s+(.+?)\s*#*$', FENCE.sub('', page.read_text()), re.MULTILINE):
        text = re.sub(r'\[([^\]]*)\]\([^)]*\)', r'\1', heading)
        slug = re.sub(r'[^\w\- ]', '', text.lower()).replace(' ', '-')
        found.add(slug if slug not in seen else f'{slug}-{seen[slug]}')
        seen[slug] = seen.get(slug, 0) + 1
    return found


def broken(page):
    for target in LINK.findall(FENCE.sub('', page.read_text())):
        if re.match(r'[a-z]+:', target):
            continue
        path, _, fragment = target.partition('#')
        there = (page.parent / path).resolve() if path else page
        if not there.exists():
            yield f'{target}: no such file'
        elif fragment and there.suffix == '.md' and fragment not in anchors(there):
            yield f'{target}: {there.name} has no such heading; there are {sorted(anchors(there))}'


@pytest.mark.parametrize('page', PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    assert list(broken(page)) == []


def test_a_link_to_nothing_and_to_no_heading_are_found(tmp_path):
    page = tmp_path / 'page.md'
    page.write_text('# A title, of *two* parts\n\n[a](none.md) [b](#a-title-of-two-parts) [c](#nowhere) [d](https://x.invalid/y)\n')
    assert [found.partition(':')[0] for found in broken(page)] == ['none.md', '#nowhere']
