"""The report of a comparison: one HTML file made of the files that the runs wrote."""
