// The etcd server, as its own main package has it: that one's directory is
// called "server", and so would the program be.
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() { etcdmain.Main(os.Args) }
