"""Sphinx's settings. The pages come from docs/build.py, which `make site` calls; nothing here asks the network."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

project = PROJECT["name"]
author = PROJECT["authors"][0]["name"]
copyright = f"{author}, {PROJECT['license']} licence"
release = PROJECT["version"]

extensions = [
    "myst_nb",
    "sphinx_design",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
# formulas are written as code, so that no page needs MathJax
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # outputs as executed, never run again
nb_merge_streams = True
nb_ipywidgets_js = {}  # its scripts would come from elsewhere; progress bars are taken out
nb_code_prompt_show = "Show code"
nb_code_prompt_hide = "Hide code"
exclude_patterns = ["downloads", ".sphinx"]
suppress_warnings = ["mystnb.unknown_mime_type", "design.card_legacy"]

viewcode_follow_imported_members = False  # or the sources of torch and others are read for names that nobody looks up
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_class_signature = "mixed"
napoleon_use_ivar = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
default_role = "py:obj"  # `name` in a docstring is a link where there is such a name, and code where there is none
toc_object_entries_show_parents = "hide"

html_theme = "pydata_sphinx_theme"
html_title = "sae-unlearning"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_js_files = ["site.js"]
html_show_sourcelink = False
html_copy_source = False
html_show_sphinx = False
html_theme_options = {
    "logo": {
        "text": "sae-unlearning",
        "image_light": "_static/logo.svg",
        "image_dark": "_static/logo.svg",
        "alt_text": "",
    },
    "header_links_before_dropdown": 7,
    "navbar_end": ["theme-switcher"],
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": ["theme-version"],
    "navigation_depth": 2,
    "show_nav_level": 1,
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
    "search_bar_text": "Search these pages",
    "show_version_warning_banner": False,
}
html_favicon = "_static/logo.svg"
html_sidebars = {
    "**": ["sidebar-nav-bs"],
    "index": [],
    "gallery": [],
    "move-it": [],
    "claims": [],
    "departures": [],
    "changelog": [],
}
html_context = {"default_mode": "auto"}
