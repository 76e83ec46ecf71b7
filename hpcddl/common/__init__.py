"""Small helpers that every floor uses: errors, files, progress, options, tables, colours."""
