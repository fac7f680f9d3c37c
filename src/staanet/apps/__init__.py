"""Programs that use the library: the local web page, bridges to other libraries, the installation check."""
