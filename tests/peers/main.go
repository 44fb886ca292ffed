// Peers are candidates that the operator's elector competes and is compared with: client-go's leader election as a plain
// program uses it, and controller-runtime's manager.
//
// Each event is one line of JSON on standard output, with the wall clock in microseconds. Logs go to standard error.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// settings are the options of all kinds of candidates.
type settings struct {
	identity        string
	namespace       string
	lease           string
	leaseDuration   time.Duration
	renewDeadline   time.Duration
	retryPeriod     time.Duration
	releaseOnCancel bool
}

// event is what a candidate believes from then on.
type event struct {
	Time     int64  `json:"time"`
	Event    string `json:"event"`
	Identity string `json:"identity"`
	Leader   string `json:"leader,omitempty"`
}

var output sync.Mutex

func (s settings) report(what, leader string) {
	line, err := json.Marshal(event{Time: time.Now().UnixMicro(), Event: what, Identity: s.identity, Leader: leader})
	if err != nil {
		fail(err)
	}
	output.Lock()
	defer output.Unlock()
	fmt.Println(string(line))
}

func main() {
	var s settings
	// Not the default flag set: controller-runtime registers a flag there.
	flags := flag.NewFlagSet(os.Args[0], flag.ExitOnError)
	kind := flags.String("kind", "client-go", "client-go, controller-runtime or reconciler")
	kubeconfig := flags.String("kubeconfig", "", "path of a kubeconfig; inside a Pod, its service account if empty")
	flags.StringVar(&s.identity, "identity", "", "name of this candidate")
	flags.StringVar(&s.namespace, "namespace", "default", "namespace of the Lease")
	flags.StringVar(&s.lease, "lease", "peers", "name of the Lease")
	flags.DurationVar(&s.leaseDuration, "lease-duration", 30*time.Second, "how long standbys wait after the last renewal")
	flags.DurationVar(&s.renewDeadline, "renew-deadline", 20*time.Second, "how long a leader tries to renew")
	flags.DurationVar(&s.retryPeriod, "retry-period", 5*time.Second, "time between two attempts")
	flags.BoolVar(&s.releaseOnCancel, "release-on-cancel", false, "release the Lease on SIGTERM")
	if err := flags.Parse(os.Args[1:]); err != nil {
		fail(err)
	}

	config, err := connect(*kubeconfig)
	if err != nil {
		fail(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	switch *kind {
	case "client-go":
		err = elect(ctx, config, s)
	case "controller-runtime":
		err = manage(ctx, config, s)
	case "reconciler":
		err = reconcileOffers(ctx, config, s)
	default:
		err = fmt.Errorf("unknown kind %q", *kind)
	}
	if err != nil {
		fail(err)
	}
}

func connect(kubeconfig string) (*rest.Config, error) {
	if kubeconfig == "" {
		return rest.InClusterConfig()
	}
	return clientcmd.BuildConfigFromFlags("", kubeconfig)
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
