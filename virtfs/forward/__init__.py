"""The forwarder: what moves frames between the taps and the files, in trio tasks."""
