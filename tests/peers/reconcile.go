package main

import (
	"context"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// workers is how many offers are reconciled concurrently, as in the operator.
const workers = 16

// byUpstream is an index of offers by the Service that they sell.
const byUpstream = "upstream"

// covers is the message of Ready, as the operator writes it.
const covers = "covers acceptance, the upstream Service and registration; routes and payment are not managed by this version"

// reconcileOffers runs a manager with one controller, which keeps the status of every offer that has no registration. It
// watches what the operator watches:
//
//   - ServiceOffer, which it reconciles
//   - AgentRegistration, whose offers it reconciles
//   - IdentityRegistry, for which it reconciles every offer with a registration
//   - Service, by metadata only: it reconciles the offers that sell it
//   - Namespace, by metadata only: it reconciles the offers in it
//
// It writes the status as the operator does: by server-side apply, for the version that was observed, and only if it differs.
// The client has no rate limit of its own, and the cache drops managed fields, as controller-runtime's documentation advises.
func reconcileOffers(ctx context.Context, config *rest.Config, s settings) error {
	ctrl.SetLogger(klog.Background())
	config.QPS = -1
	scheme := runtime.NewScheme()
	if err := clientgoscheme.AddToScheme(scheme); err != nil {
		return err
	}
	addOffers(scheme)
	options := managerOptions(s)
	options.Scheme = scheme
	options.Cache = cache.Options{DefaultTransform: cache.TransformStripManagedFields()}
	mgr, err := ctrl.NewManager(config, options)
	if err != nil {
		return err
	}
	upstream := func(object client.Object) []string {
		offer, ok := object.(*ServiceOffer)
		if !ok || offer.Spec == nil || offer.Spec.Upstream == nil {
			return nil
		}
		return []string{offer.Spec.Upstream.Namespace + "/" + offer.Spec.Upstream.Service}
	}
	if err := mgr.GetFieldIndexer().IndexField(ctx, &ServiceOffer{}, byUpstream, upstream); err != nil {
		return err
	}
	r := reconciler{mgr.GetClient()}
	err = ctrl.NewControllerManagedBy(mgr).
		For(&ServiceOffer{}).
		Watches(&AgentRegistration{}, handler.EnqueueRequestsFromMapFunc(r.ofRecord)).
		Watches(&IdentityRegistry{}, handler.EnqueueRequestsFromMapFunc(r.ofRegistry)).
		Watches(metadata("Service"), handler.EnqueueRequestsFromMapFunc(r.ofService), builder.OnlyMetadata).
		Watches(metadata("Namespace"), handler.EnqueueRequestsFromMapFunc(r.ofNamespace), builder.OnlyMetadata).
		WithOptions(controller.Options{MaxConcurrentReconciles: workers}).
		Complete(r)
	if err != nil {
		return err
	}
	return lead(ctx, mgr, s)
}

// metadata is an object of a core kind of which only the metadata is watched.
func metadata(kind string) *metav1.PartialObjectMetadata {
	object := &metav1.PartialObjectMetadata{}
	object.SetGroupVersionKind(schema.GroupVersionKind{Version: "v1", Kind: kind})
	return object
}

type reconciler struct{ client client.Client }

// Reconcile writes the status of an offer that has no registration, if it differs.
func (r reconciler) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	var offer ServiceOffer
	if err := r.client.Get(ctx, request.NamespacedName, &offer); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	if offer.Spec == nil || offer.Spec.Registration != nil && offer.Spec.Registration.Enabled {
		return reconcile.Result{}, nil
	}
	status, err := r.plan(ctx, &offer)
	if err != nil || equality.Semantic.DeepEqual(offer.Status, status) {
		return reconcile.Result{}, err
	}
	applied := &ServiceOffer{
		TypeMeta: metav1.TypeMeta{APIVersion: offers.String(), Kind: "ServiceOffer"},
		ObjectMeta: metav1.ObjectMeta{
			Namespace:       offer.Namespace,
			Name:            offer.Name,
			UID:             offer.UID,
			ResourceVersion: offer.ResourceVersion,
		},
		Status: status,
	}
	err = r.client.Status().Patch(ctx, applied, client.Apply, client.FieldOwner("peers"), client.ForceOwnership)
	if apierrors.IsConflict(err) {
		// The watch delivers the version that this one is behind.
		err = nil
	}
	return reconcile.Result{}, err
}

// plan decides what the status should say.
func (r reconciler) plan(ctx context.Context, offer *ServiceOffer) (ServiceOfferStatus, error) {
	status := offer.Status.deepCopy()
	status.ObservedGeneration = offer.Generation
	set := func(kind string, value metav1.ConditionStatus, reason, message string) {
		meta.SetStatusCondition(&status.Conditions, metav1.Condition{
			Type: kind, Status: value, Reason: reason, Message: message, ObservedGeneration: offer.Generation,
		})
	}
	set("Accepted", metav1.ConditionTrue, "Accepted", "the spec is valid, and no field of it is ignored")
	set("Registered", metav1.ConditionTrue, "Disabled", "registration is disabled")
	missing, err := r.missingService(ctx, offer)
	if err != nil {
		return status, err
	}
	if missing == "" {
		meta.RemoveStatusCondition(&status.Conditions, "UpstreamHealthy")
		meta.RemoveStatusCondition(&status.Conditions, "Reconciling")
		set("Ready", metav1.ConditionTrue, "Reconciled", covers)
	} else {
		set("UpstreamHealthy", metav1.ConditionFalse, "MissingService", missing)
		set("Ready", metav1.ConditionFalse, "MissingService", missing)
		set("Reconciling", metav1.ConditionTrue, "MissingService", missing)
	}
	status.Endpoint = "/services/" + offer.Name
	if offer.Spec.Path != nil {
		status.Endpoint = *offer.Spec.Path
	}
	status.Price = ""
	if price := offer.Spec.Payment.Price.PerRequest; price != "" {
		status.Price = price
		if asset := offer.Spec.Payment.Asset; asset != nil && asset.Symbol != "" {
			status.Price += " " + asset.Symbol
		}
		status.Price += "/request"
	}
	return status, nil
}

// missingService says that the Service of the offer does not exist; it is empty if the Service exists or there is none.
func (r reconciler) missingService(ctx context.Context, offer *ServiceOffer) (string, error) {
	upstream := offer.Spec.Upstream
	if upstream == nil {
		return "", nil
	}
	name := types.NamespacedName{Namespace: upstream.Namespace, Name: upstream.Service}
	err := r.client.Get(ctx, name, metadata("Service"))
	if apierrors.IsNotFound(err) {
		return "Service " + name.String() + " does not exist: create it, or correct spec.upstream", nil
	}
	return "", err
}

func (r reconciler) ofRecord(_ context.Context, object client.Object) []reconcile.Request {
	record, ok := object.(*AgentRegistration)
	if !ok {
		return nil
	}
	var requests []reconcile.Request
	for _, offer := range record.Spec.Offers {
		name := types.NamespacedName{Namespace: offer.Namespace, Name: offer.Name}
		requests = append(requests, reconcile.Request{NamespacedName: name})
	}
	return requests
}

func (r reconciler) ofRegistry(ctx context.Context, _ client.Object) []reconcile.Request {
	return r.list(ctx, func(offer *ServiceOffer) bool { return offer.Spec != nil && offer.Spec.Registration != nil })
}

func (r reconciler) ofService(ctx context.Context, service client.Object) []reconcile.Request {
	name := service.GetNamespace() + "/" + service.GetName()
	return r.list(ctx, nil, client.MatchingFields{byUpstream: name})
}

func (r reconciler) ofNamespace(ctx context.Context, namespace client.Object) []reconcile.Request {
	return r.list(ctx, nil, client.InNamespace(namespace.GetName()))
}

// list requests the offers that match, from the cache and without copies.
func (r reconciler) list(ctx context.Context, matches func(*ServiceOffer) bool, options ...client.ListOption) []reconcile.Request {
	var found ServiceOfferList
	if err := r.client.List(ctx, &found, append(options, client.UnsafeDisableDeepCopy)...); err != nil {
		klog.ErrorS(err, "failed to list offers")
		return nil
	}
	var requests []reconcile.Request
	for index := range found.Items {
		if offer := &found.Items[index]; matches == nil || matches(offer) {
			requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(offer)})
		}
	}
	return requests
}
