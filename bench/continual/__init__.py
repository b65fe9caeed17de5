"""The MTIL protocol (method.md section 6): tasks are learned one after the other, all asked after each."""
