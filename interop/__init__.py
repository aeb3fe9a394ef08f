"""Live tests against real Go peers. See README.md."""
