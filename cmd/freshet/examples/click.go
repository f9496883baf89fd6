package examples

import (
	"math"
	"slices"
)

// The parts of η, in thousandths.
const (
	intercept     = -2350
	inFashion     = 1600
	favourite     = 700
	novelty       = 500
	searched      = 400
	notSearched   = -1000
	searchedTag   = 700
	perPercent    = 12
	etaMax        = 8000 // beyond it p is cut: between 0.0003 and 0.9997
	million       = 1_000_000
	pageLengthMin = 4
	pageLengthMax = 12
)

// Devices and surfaces, as indices of their names.
const (
	phone = iota
	desktop
	tablet
)

const (
	search = iota
	home
	mail
)

var (
	deviceNames  = [...]string{"phone", "desktop", "tablet"}
	surfaceNames = [...]string{"search", "home", "mail"}
	// positionSlopes are by how much η falls with the logarithm of the position.
	positionSlopes = [...]float64{search: -700, home: -450, mail: -250}
)

// clicks holds the tables of the click model.
type clicks struct {
	liking    [nAgeGroups][nCategories]int
	habit     [len(deviceNames)][24]int
	positions [len(surfaceNames)][pageLengthMax]int
	// probabilities are in millionths, by η from -etaMax.
	probabilities [2*etaMax + 1]int
}

func newClicks(s *simulation) *clicks {
	c := new(clicks)
	for g := range c.liking {
		for k := range c.liking[g] {
			r := s.random(ofLiking, uint64(g), uint64(k))
			c.liking[g][k] = r.bell(300)
		}
	}
	for d := range c.habit {
		for h := range c.habit[d] {
			r := s.random(ofHabit, uint64(d), uint64(h))
			c.habit[d][h] = r.bell(250)
		}
	}
	for f := range c.positions {
		for i := range c.positions[f] {
			c.positions[f][i] = int(math.Round(positionSlopes[f] * math.Log(float64(i+1))))
		}
	}
	for i := range c.probabilities {
		eta := float64(i-etaMax) / 1000
		c.probabilities[i] = int(math.Round(million / (1 + math.Exp(-eta))))
	}
	return c
}

// probability returns the probability, in millionths, that the product of v is
// clicked on the page g. The package comment has the formula.
func (c *clicks) probability(g *page, v *view, now int64) int {
	u, p := &g.user, v.product
	eta := intercept + u.warmth + c.liking[u.ageGroup()][p.category] + p.qualityAt(now) +
		c.positions[g.surface][v.position] + c.habit[g.device][g.hour] + perPercent*v.percent
	if slices.Contains(u.fashions[:], p.category) {
		eta += inFashion
	}
	if slices.Contains(u.favourites[:], p.category) {
		eta += favourite
	}
	if over := v.price - u.budget; over > 0 {
		eta -= over * 6 / 10
	} else {
		eta += over / 10
	}
	if hours := int((now - p.listed) / hour); hours < 7*24 {
		eta += novelty - novelty*hours/(7*24)
	}
	if g.surface == search {
		if p.category == g.category {
			eta += searched
		} else {
			eta += notSearched
		}
		if g.tag >= 0 && p.has(g.tag) {
			eta += searchedTag
		}
	}
	return c.probabilities[min(max(eta, -etaMax), etaMax)+etaMax]
}
