"""The DNS client's decisions, without I/O: what is asked, of whom, what answers mean, how long they hold."""
