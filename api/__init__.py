"""Public REST APIs: one package per API, WSGI applications on pecan."""
