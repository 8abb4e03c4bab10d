"""Settings of this repository's own tests; nothing here is needed by users of the plugin."""

pytest_plugins = ["pytester"]
