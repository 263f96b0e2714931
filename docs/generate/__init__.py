"""What the site's pages are made of: from notebooks, figures, methods and docstrings to Markdown for Sphinx."""
