"""Real nodes for this package's tests, as every package has them."""

pytest_plugins = ('live_programs',)
