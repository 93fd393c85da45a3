"""What all tests share."""

pytest_plugins = ["tests.lab.fixtures", "tests.lab.groups", "tests.lab.report"]
