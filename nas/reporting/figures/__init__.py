"""The interactive plots of the report, as Plotly figures."""
