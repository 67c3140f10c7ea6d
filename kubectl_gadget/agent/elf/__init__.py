"""Program files of containers: the functions in them, and what identifies their contents."""
