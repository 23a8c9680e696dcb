"""Look inside: where time goes, where the first NaN comes from, the graph as a drawing."""
