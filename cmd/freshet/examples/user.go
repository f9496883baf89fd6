package examples

// Purposes keep the hashes of the simulation apart.
const (
	ofUser uint64 = iota + 1
	ofFavourite
	ofFashion
	ofLife
	ofProduct
	ofQuality
	ofLiking
	ofHabit
	ofEvents
)

const (
	nAgeGroups  = 6
	nStyles     = 24
	nFashions   = 4 // categories in fashion with a style at a time
	nFavourites = 2 // categories a user likes whatever the style
)

var tierNames = [...]string{"none", "bronze", "silver", "gold"}

// user is a person as of the time of one page: a function of the seed, the number
// and the time, so that a shop needs no memory per user.
type user struct {
	number     int
	age, tier  int
	style      int
	device     int // the one used most
	budget     int // log2 of a price, in thousandths
	warmth     int // thousandths of η
	favourites [nFavourites]int
	fashions   [nFashions]int // the style's
}

func (u *user) ageGroup() int { return (u.age - 16) / 10 }

func (s *simulation) userAt(number int) user {
	r := s.random(ofUser, uint64(number), 0)
	u := user{number: number, age: 16 + r.below(60), warmth: r.bell(300)}
	switch share := r.below(100); {
	case share >= 95:
		u.tier = 3
	case share >= 80:
		u.tier = 2
	case share >= 50:
		u.tier = 1
	}
	u.budget = 5000 + 600*u.tier + r.bell(400)
	switch share := r.below(100); {
	case share >= 90:
		u.device = tablet
	case share >= 60:
		u.device = desktop
	}
	u.style = r.below(nStyles)
	for j := range u.favourites {
		u.favourites[j] = s.taste(ofFavourite, number*nFavourites+j, 10, 40)
	}
	for j := range u.fashions {
		u.fashions[j] = s.taste(ofFashion, u.style*nFashions+j, 7, 28)
	}
	return u
}

// taste returns the category that somebody likes at present. Each lasts a number
// of days between two bounds, its own.
func (s *simulation) taste(purpose uint64, whose, daysMin, daysMax int) int {
	r := s.random(purpose, uint64(whose), 0)
	days := daysMin + r.below(daysMax-daysMin+1)
	phase := int64(r.below(24*days)) * hour
	turn := (s.now - start + phase) / (int64(days) * day)
	r = s.random(purpose, uint64(whose), uint64(turn)+1)
	return r.below(nCategories)
}
