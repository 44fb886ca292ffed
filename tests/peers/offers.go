package main

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// The operator's kinds, with the fields that the reconciler reads. Fewer fields than a full type cost less memory and less
// decoding, which favors the peer.

// objectName is the name of an object in a namespace.
type objectName struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
}

// ServiceOffer is what a seller asks for.
type ServiceOffer struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	// A pointer, so that an applied status carries no spec.
	Spec   *ServiceOfferSpec  `json:"spec,omitempty"`
	Status ServiceOfferStatus `json:"status,omitempty"`
}

// ServiceOfferSpec holds no pointer to something that is changed: copies share them.
type ServiceOfferSpec struct {
	Path     *string `json:"path,omitempty"`
	Upstream *struct {
		Service   string `json:"service"`
		Namespace string `json:"namespace"`
	} `json:"upstream,omitempty"`
	Payment struct {
		Asset *struct {
			Symbol string `json:"symbol,omitempty"`
		} `json:"asset,omitempty"`
		Price struct {
			PerRequest string `json:"perRequest,omitempty"`
		} `json:"price"`
	} `json:"payment"`
	Registration *struct {
		Enabled bool `json:"enabled,omitempty"`
	} `json:"registration,omitempty"`
}

// ServiceOfferStatus is the status of an offer that has no registration.
type ServiceOfferStatus struct {
	ObservedGeneration int64              `json:"observedGeneration,omitempty"`
	Conditions         []metav1.Condition `json:"conditions,omitempty"`
	Endpoint           string             `json:"endpoint,omitempty"`
	Price              string             `json:"price,omitempty"`
}

func (s ServiceOfferStatus) deepCopy() ServiceOfferStatus {
	copied := s
	copied.Conditions = nil
	for _, condition := range s.Conditions {
		copied.Conditions = append(copied.Conditions, *condition.DeepCopy())
	}
	return copied
}

// DeepCopyObject implements runtime.Object.
func (o *ServiceOffer) DeepCopyObject() runtime.Object {
	copied := &ServiceOffer{TypeMeta: o.TypeMeta, Status: o.Status.deepCopy()}
	o.ObjectMeta.DeepCopyInto(&copied.ObjectMeta)
	if o.Spec != nil {
		spec := *o.Spec
		copied.Spec = &spec
	}
	return copied
}

// AgentRegistration is the record of an agent.
type AgentRegistration struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              struct {
		Offers []objectName `json:"offers,omitempty"`
	} `json:"spec"`
}

// DeepCopyObject implements runtime.Object.
func (r *AgentRegistration) DeepCopyObject() runtime.Object {
	copied := &AgentRegistration{TypeMeta: r.TypeMeta}
	r.ObjectMeta.DeepCopyInto(&copied.ObjectMeta)
	copied.Spec.Offers = append(copied.Spec.Offers, r.Spec.Offers...)
	return copied
}

// IdentityRegistry configures a registry contract.
type IdentityRegistry struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              struct {
		BaseURL string `json:"baseUrl,omitempty"`
	} `json:"spec"`
}

// DeepCopyObject implements runtime.Object.
func (r *IdentityRegistry) DeepCopyObject() runtime.Object {
	copied := &IdentityRegistry{TypeMeta: r.TypeMeta, Spec: r.Spec}
	r.ObjectMeta.DeepCopyInto(&copied.ObjectMeta)
	return copied
}

// ServiceOfferList is a list of offers.
type ServiceOfferList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []ServiceOffer `json:"items"`
}

// DeepCopyObject implements runtime.Object.
func (l *ServiceOfferList) DeepCopyObject() runtime.Object {
	copied := &ServiceOfferList{TypeMeta: l.TypeMeta, Items: copies(l.Items, (*ServiceOffer).DeepCopyObject)}
	l.ListMeta.DeepCopyInto(&copied.ListMeta)
	return copied
}

// AgentRegistrationList is a list of records.
type AgentRegistrationList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []AgentRegistration `json:"items"`
}

// DeepCopyObject implements runtime.Object.
func (l *AgentRegistrationList) DeepCopyObject() runtime.Object {
	copied := &AgentRegistrationList{TypeMeta: l.TypeMeta, Items: copies(l.Items, (*AgentRegistration).DeepCopyObject)}
	l.ListMeta.DeepCopyInto(&copied.ListMeta)
	return copied
}

// IdentityRegistryList is a list of registries.
type IdentityRegistryList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []IdentityRegistry `json:"items"`
}

// DeepCopyObject implements runtime.Object.
func (l *IdentityRegistryList) DeepCopyObject() runtime.Object {
	copied := &IdentityRegistryList{TypeMeta: l.TypeMeta, Items: copies(l.Items, (*IdentityRegistry).DeepCopyObject)}
	l.ListMeta.DeepCopyInto(&copied.ListMeta)
	return copied
}

func copies[T any](items []T, copyOf func(*T) runtime.Object) []T {
	var copied []T
	for index := range items {
		item, _ := copyOf(&items[index]).(any).(*T)
		copied = append(copied, *item)
	}
	return copied
}

// addOffers registers the kinds.
func addOffers(scheme *runtime.Scheme) {
	for kind, object := range map[string]runtime.Object{
		"ServiceOffer":          &ServiceOffer{},
		"ServiceOfferList":      &ServiceOfferList{},
		"AgentRegistration":     &AgentRegistration{},
		"AgentRegistrationList": &AgentRegistrationList{},
		"IdentityRegistry":      &IdentityRegistry{},
		"IdentityRegistryList":  &IdentityRegistryList{},
	} {
		scheme.AddKnownTypeWithName(schema.GroupVersionKind{Group: offers.Group, Version: offers.Version, Kind: kind}, object)
	}
	metav1.AddToGroupVersion(scheme, offers)
}
