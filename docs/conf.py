"""Sphinx's configuration: the Markdown pages of the repository as a site.

The source folder is the repository's root, so that links between pages are the same
here as on GitHub. .ci/docs builds the site.
"""

import os
import re
from pathlib import Path

import tomllib

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

project = PROJECT["name"]
author = PROJECT["authors"][0]["name"]
version = release = PROJECT["version"]
copyright = author

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
]
root_doc = "docs/index"
include_patterns = [
    "*.md",
    "benchmarks/*.md",
    "docs/*.md",
    "examples/**.md",
    "tests/**.md",
]
exclude_patterns = [".*", "build", "dist", "docs/site"]

highlight_language = "none"  # of blocks that name no language
myst_heading_anchors = 4  # as GitHub makes them
nitpicky = True  # a reference in a docstring that leads nowhere is a warning

# Types are in the docstrings.
autodoc_typehints = "none"
napoleon_use_param = False
napoleon_use_rtype = False
python_maximum_signature_line_length = 60
add_module_names = False

html_theme = "sphinx_book_theme"
html_title = f"{project} {version}"
html_static_path = ["site/static"]
html_extra_path = ["site/root"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_copyright = False
html_theme_options = {
    "navbar_persistent": [],  # the sidebar has the search
    "show_toc_level": 2,
    "use_download_button": False,
}


def repository():
    """The address of the repository: pyproject.toml's, or of the workflow's run."""
    if address := PROJECT.get("urls", {}).get("Repository"):
        return address
    if name := os.environ.get("GITHUB_REPOSITORY"):
        return f"{os.environ['GITHUB_SERVER_URL']}/{name}"
    return None


REPOSITORY = repository()
if REPOSITORY:
    html_theme_options |= {
        "repository_url": REPOSITORY,
        "repository_branch": "main",
        "use_issues_button": True,
        "use_repository_button": True,
    }


def link_sources_to_repository(app, docname, content):
    """Links to files and folders that are no part of the site lead to the repository.

    Where its address is not known, their text stays without a link.
    """
    folder = (ROOT / docname).parent

    def link(match):
        text, path = match.groups()
        target = (folder / path).resolve()
        if target.suffix in (".md", ".png") or not target.is_relative_to(ROOT):
            return match[0]
        if not target.exists():
            raise FileNotFoundError(f"{docname}: link to {path}")
        if REPOSITORY is None:
            return text
        kind = "tree" if target.is_dir() else "blob"
        return f"[{text}]({REPOSITORY}/{kind}/main/{target.relative_to(ROOT)})"

    content[0] = re.sub(r"(?<!!)\[([^\]]+)\]\((?!\w+:|#)([^)\s#]+)\)", link, content[0])


def setup(app):
    app.connect("source-read", link_sources_to_repository)
