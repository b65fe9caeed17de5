"""The bodies of requests and answers, a file a noun; OpenAPI is made from them."""
