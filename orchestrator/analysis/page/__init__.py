"""The report's page: one HTML file with everything in it. `render` makes it of blocks, `charts` are what it draws."""
