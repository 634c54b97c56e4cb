"""A chat service that learns, live, from the people who use it: the library behind the services."""
