"""What all tests share."""

pytest_plugins = ["tests.lab.leftovers", "tests.lab.fixtures", "tests.lab.groups", "tests.lab.report"]
