"""The tables and figures of Houlsby et al. 2019, made from any sweep, and the files that a paper takes them from."""
