"""Raw metrics to fidelities, fidelity intervals, ratios and ranks. Plain DataFrames; no torch, no streamlit."""
