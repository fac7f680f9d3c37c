"""Programs around the library: the local page, other libraries, the check of an installation."""
