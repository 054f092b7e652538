"""The supervisor's ends of its sockets, and the event loop that reads them."""
