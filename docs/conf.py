"""The site, made by Sphinx (`make site`): it is well kept, and with -W takes no link that leads nowhere."""

project = "vmtests"
html_title = "vmtests"
extensions = ["myst_parser"]
# start.md is a part of index.rst, which has the contents besides.
exclude_patterns = ["start.md", "examples/*/*", "pictures/made.json"]
root_doc = "index"
html_theme = "furo"
html_show_copyright = html_show_sphinx = False
html_copy_source = html_show_sourcelink = False
highlight_language = "bash"
pygments_style, pygments_dark_style = "friendly", "github-dark"
myst_heading_anchors = 4
myst_enable_extensions = ["fieldlist"]
suppress_warnings = ["misc.highlighting_failure"]
