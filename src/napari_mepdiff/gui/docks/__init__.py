"""Data, Reconstruct, Guidance, Compare and Export: thin views over the session."""
