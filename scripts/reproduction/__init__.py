"""The paper's experiments as data, how they are run and stored, and the report about them."""
