"""The rules as functions of a graph, by theme; ``saq_qat_export.lint.rules`` lists them."""
