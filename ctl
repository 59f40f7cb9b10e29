create 3 up
