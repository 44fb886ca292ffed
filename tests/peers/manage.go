package main

import (
	"context"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// offers is the API group of the operator's CRDs.
var offers = schema.GroupVersion{Group: "obol.org", Version: "v1alpha1"}

// watched are the kinds that the operator caches on every replica: its own in full, the others by metadata only.
func watched() []client.Object {
	var kinds []client.Object
	for _, kind := range []string{"ServiceOffer", "AgentRegistration", "IdentityRegistry"} {
		object := &unstructured.Unstructured{}
		object.SetGroupVersionKind(offers.WithKind(kind))
		kinds = append(kinds, object)
	}
	for _, kind := range []string{"Namespace", "Service"} {
		object := &metav1.PartialObjectMetadata{}
		object.SetGroupVersionKind(schema.GroupVersionKind{Version: "v1", Kind: kind})
		kinds = append(kinds, object)
	}
	return kinds
}

func managerOptions(s settings) ctrl.Options {
	return ctrl.Options{
		LeaderElection:                true,
		LeaderElectionNamespace:       s.namespace,
		LeaderElectionID:              s.lease,
		LeaderElectionReleaseOnCancel: s.releaseOnCancel,
		LeaseDuration:                 &s.leaseDuration,
		RenewDeadline:                 &s.renewDeadline,
		RetryPeriod:                   &s.retryPeriod,
		Metrics:                       metricsserver.Options{BindAddress: "127.0.0.1:0"},
	}
}

// manage runs a manager with one controller per kind. Caches are warm on standbys too.
func manage(ctx context.Context, config *rest.Config, s settings) error {
	ctrl.SetLogger(klog.Background())
	mgr, err := ctrl.NewManager(config, managerOptions(s))
	if err != nil {
		return err
	}
	for _, object := range watched() {
		if err := control(mgr, object); err != nil {
			return err
		}
	}
	return lead(ctx, mgr, s)
}

// lead runs a manager, and reports when it leads and when it has stopped.
func lead(ctx context.Context, mgr ctrl.Manager, s settings) error {
	if err := mgr.Add(announcement{s}); err != nil {
		return err
	}
	err := mgr.Start(ctx)
	s.report("stopped-leading", "")
	if ctx.Err() != nil {
		// After SIGTERM the manager reports its lease as lost.
		return nil
	}
	return err
}

func control(mgr ctrl.Manager, object client.Object) error {
	kind := object.GetObjectKind().GroupVersionKind().Kind
	nothing := reconcile.Func(func(context.Context, reconcile.Request) (reconcile.Result, error) {
		return reconcile.Result{}, nil
	})
	return ctrl.NewControllerManagedBy(mgr).
		Named(kind).
		For(object).
		WithOptions(controller.Options{EnableWarmup: ptr.To(true)}).
		Complete(nothing)
}

// announcement reports when this replica starts leading.
type announcement struct{ settings settings }

var _ manager.LeaderElectionRunnable = announcement{}

func (a announcement) NeedLeaderElection() bool { return true }

func (a announcement) Start(ctx context.Context) error {
	a.settings.report("started-leading", a.settings.identity)
	<-ctx.Done()
	return nil
}
